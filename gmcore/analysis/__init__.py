"""From trajectories to numbers with error bars: thermal averages of D, correlation functions, spectra, normal modes."""
