"""Templates: a row's values → the text that is asked.

template   compiled once, rendered for each row
rewrite    what a template is allowed to say, checked and metered in its syntax tree
sandbox    the environment that it runs in: filters, methods, operators, allowances
text       how a value is printed
"""

from batchllm.prompt.template import Template, TemplateError
from batchllm.prompt.text import missing_column, to_text, well_formed

__all__ = ["Template", "TemplateError", "missing_column", "to_text", "well_formed"]
