"""What the study of class imbalance says about merging and about texts, one file a comparison."""
