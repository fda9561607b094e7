"""What drives tasks apart: gradient conflict and vector lengths."""
