"""What drives tasks apart: gradient conflict and vector lengths; and which data sets belong together."""
