"""Results that draw themselves, in notebooks and files: SVG and HTML, with nothing to install."""

from fusemodel.report.draw.dag import cascade_svg
from fusemodel.report.draw.front import found_html, found_svg
from fusemodel.report.draw.looptree import design_svg
from fusemodel.report.draw.results import bars, comparison_html, evaluation_html
from fusemodel.report.draw.waterfall import simulation_html, waterfall_svg

__all__ = [
    "bars", "cascade_svg", "comparison_html", "design_svg", "evaluation_html", "found_html", "found_svg",
    "simulation_html", "waterfall_svg",
]  # fmt: skip
