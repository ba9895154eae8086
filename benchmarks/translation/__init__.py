"""Does a torch model that is translated to OneFlow compute what it computes in torch? Measured on torchvision's zoo."""
