"""Reader studies: people judge real and generated images, blinded, in a page that this machine alone serves."""

from tigergen.study.new import new
from tigergen.study.score import score
from tigergen.study.serve import serve

__all__ = ["new", "score", "serve"]
