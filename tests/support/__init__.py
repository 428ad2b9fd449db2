"""What tests of several rooms share: systems, models, data, runs, tolerances, places."""
