"""A comparison as one page of HTML that needs nothing else: no network, no other file."""

from fusemodel.report.html.page import html_page

__all__ = ["html_page"]
