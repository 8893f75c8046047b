"""Owns the report of an evaluation: one self-contained HTML page, and a table of its images."""

from calibration.report.files import render, write_report

__all__ = ["render", "write_report"]
