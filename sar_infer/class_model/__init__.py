"""One Gaussian model of the classes: photos, names, unknown images and photos without labels from one likelihood."""
