"""Specs inside the trainers of others. Each module is for one tool, and needs that tool when it is used.

``docs/trainers.md`` has ten lines for each, and says which versions were tried. Tools that call a torch scheduler once
an update need no module here: timm, Composer and MONAI.
"""
