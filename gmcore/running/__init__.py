"""Long work: how it is asked to end, and how it says where it is."""
