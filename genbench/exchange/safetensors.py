"""The file format safetensors: a length, a JSON header with the position of each array, and the arrays.

https://github.com/huggingface/safetensors#format. genbench writes it directly, because the code is short and saves a
dependency.
"""

import json
from collections.abc import Mapping

import numpy as np

from genbench.errors import UserError

DTYPES = {
    'float64': 'F64', 'float32': 'F32', 'float16': 'F16', 'bfloat16': 'BF16', 'int64': 'I64', 'int32': 'I32',
    'int16': 'I16', 'int8': 'I8', 'uint64': 'U64', 'uint32': 'U32', 'uint16': 'U16', 'uint8': 'U8', 'bool': 'BOOL',
}  # fmt: skip
_ALIGNMENT = 8  # alignment of the start of the arrays, in bytes


def encode(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a file that holds these arrays by name, together with texts as metadata.

    Raises:
      UserError: an array has a type that the format does not know.
    """
    header: dict[str, object] = {'__metadata__': dict(metadata)}
    parts, end = [], 0
    for name, value in sorted(arrays.items()):
        if value.dtype.name not in DTYPES:
            raise UserError(f'{name} is an array of {value.dtype.name}, which safetensors does not support.')
        part = np.ascontiguousarray(value).tobytes()
        header[name] = {
            'dtype': DTYPES[value.dtype.name],
            'shape': list(value.shape),
            'data_offsets': [end, end + len(part)],
        }
        parts.append(part)
        end += len(part)
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, 'little') + text + b''.join(parts)
