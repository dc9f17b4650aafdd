"""Tests mirror the packages; what many of them share lies in `worlds`."""
