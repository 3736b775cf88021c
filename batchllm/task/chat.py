"""Chat: a row's values → messages; the reply → the text of its first choice."""

from collections.abc import Mapping, Sequence

import orjson
import pyarrow as pa

from batchllm.errors import RowError
from batchllm.ports import Task
from batchllm.prompt import Template, missing_column, well_formed
from batchllm.records import AnswerValue, Failure, Reading, Request, Row
from batchllm.spec import models
from batchllm.task.answer_schema import AnswerSchema
from batchllm.task.reply import Envelope, Generated, finish_reason, first_choice, judge, open_envelope

_ROLES = frozenset({"assistant", "developer", "system", "tool", "user"})
