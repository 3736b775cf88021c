"""OUT/report.html: one file that says what the votes agreed on and how good that is, and loads nothing.

Charts are Vega-Lite specs drawn by vl-convert, which wants no browser and no network.
TODO decide

Heat maps and confusion matrices are HTML tables with coloured cells (`matrices`): they can be read aloud, copied and
searched, and need no library.
"""

from batchllm.report.page.sections import Section
from batchllm.report.page.writing import REPORT_FILE, write_report

__all__ = ["REPORT_FILE", "Section", "write_report"]
