"""Class imbalance in convolutional networks (Buda, Maki, Mazurowski 2018, arXiv 1710.05381), and in text."""
