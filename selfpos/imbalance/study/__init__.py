"""The study of class imbalance in CNNs."""
