"""OUT/report.html: one file that says what the votes agreed on and how good that is, and loads nothing.

Charts are Vega-Lite specs drawn by vl-convert. Measured beside matplotlib: a wheel of 33 MB against 24 MB (with what it
brings), BSD-3 against PSF-like, both drawing without a browser and a network. vl-convert was taken since its text stays
text and its colours stay what the spec says, a CSS variable among them, so that one drawing follows the page's theme;
since it writes attributes and no style, which a strict policy would refuse; and since a drawing is a value that tests
can look at.
matplotlib would turn colours into numbers and keeps a font cache in the user's home. There are wheels for the systems
that pyarrow has them for. Where it is missing or fails, the page goes on without drawings and says so.

Heat maps and confusion matrices are HTML tables with coloured cells (`matrices`): they can be read aloud, copied and
searched, and need no library.
"""

from batchllm.report.page.sections import Section
from batchllm.report.page.writing import REPORT_FILE, write_report

__all__ = ["REPORT_FILE", "Section", "write_report"]
