"""Readers of image sets: each turns one layout into `ImageRecord`s, with descriptors in the vocabulary's words."""
