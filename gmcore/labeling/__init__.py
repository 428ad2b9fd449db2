"""Labels of frames from reference methods: quantum chemistry programs, ASE calculators, functions of the user's."""
