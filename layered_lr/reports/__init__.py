"""Figures, curves, tables and HTML pages. This room knows no plan: it draws what it is given."""
