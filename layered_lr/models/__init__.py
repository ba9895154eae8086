"""Models without a framework: parameters by name, patterns that match them, models known by name, weight files."""
