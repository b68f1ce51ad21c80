"""What several systems are: chains that predict x_0, and those on vectors."""
