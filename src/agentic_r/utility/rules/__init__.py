"""The selection rules: which measured candidates become positives and hard negatives."""
