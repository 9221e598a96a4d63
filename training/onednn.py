"""oneDNN, a library of layers for x86 processors, through its C interface.

Paddle's wheels for Linux on x86 carry it (paddle/libs/libdnnl.so.3), but Paddle's eager mode does not call it. The words are
those of its documentation (https://uxlfoundation.github.io/oneDNN): a `Layout` (memory descriptor) says how numbers lie in
memory, an `Array` (memory) is numbers that lie so, a `Primitive` is an operation compiled for given layouts.
"""
import ctypes
import math
import os
from ctypes import POINTER, byref, c_float, c_int, c_int64, c_size_t, c_void_p
from functools import cache, lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
import paddle

FILE = Path(paddle.__file__).parent / "libs" / "libdnnl.so.3"
SWITCH = "FAST_LAYERS"  # an environment variable; where it is "off", or anything but "on", Paddle's own layers compute everything
VERSION = 3  # of the C interface, and so the file's last number
FLOAT32, BFLOAT16, BYTES = 3, 2, 6  # from dnnl_types.h, as are all numbers below
DTYPES = {paddle.float32: FLOAT32, paddle.bfloat16: BFLOAT16, paddle.uint8: BYTES}
SIZES = {FLOAT32: 4, BFLOAT16: 2, BYTES: 1}
STATUS = {1: "out of memory", 2: "invalid arguments", 3: "not implemented for these shapes and types"}
ALIGNMENT = 64  # bytes: a cache line, and the widest register
# propagation kinds and algorithms
TRAINING, BACKWARD = 64, 128
CONVOLUTION, RELU, TANH, MAXIMUM, ADD, NEAREST, SUM = 0x1, 0x100, 0x101, 0x1FF, 0x1FFF0, 0x2FFF0, 0x2FFF4
# arguments of primitives, and their gradients
SOURCE, SOURCE_1, TARGET, WEIGHTS, MEAN, VARIANCE, SCALE, SHIFT, WORKSPACE = 1, 2, 17, 33, 49, 50, 51, 52, 64
D_SOURCE, D_TARGET, D_WEIGHTS, D_SCALE, D_SHIFT = 129, 145, 161, 255, 256
CHOSEN = {WEIGHTS: 131, D_WEIGHTS: 132, WORKSPACE: 135}  # dnnl_query_*_md: which layout the library chose


@cache
def library():
    """The loaded library with its `engine`, `stream` and a `lock`; or, as text, why there is none."""
    if os.environ.get(SWITCH, "on") != "on":
        return f"{SWITCH}={os.environ[SWITCH]}"
    try:
        dnnl = ctypes.CDLL(str(FILE))
        dnnl.dnnl_version.restype = POINTER(c_int)
        if dnnl.dnnl_version()[0] != VERSION:
            return f"oneDNN {dnnl.dnnl_version()[0]} is not version {VERSION}"
        dnnl.dnnl_memory_desc_get_size.restype = c_size_t
        dnnl.dnnl_primitive_desc_query_md.restype = c_void_p
        dnnl.dnnl_memory_set_data_handle.argtypes = [c_void_p, c_void_p]
        dnnl.engine, dnnl.stream, dnnl.lock = c_void_p(), c_void_p(), Lock()
        check(dnnl.dnnl_engine_create(byref(dnnl.engine), 1, c_size_t(0)))  # 1: a CPU
        check(dnnl.dnnl_stream_create(byref(dnnl.stream), dnnl.engine, 1))  # 1: one after the other
    except OSError:
        return "this Paddle brings no oneDNN"
    except (AttributeError, RuntimeError) as error:
        return f"its oneDNN does not work here: {error}"
    return dnnl


def usable():
    """Whether the library is there and switched on."""
    return not isinstance(library(), str)


def check(status):
    """Raises RuntimeError for a status other than success."""
    if status:
        raise RuntimeError(f"oneDNN: {STATUS.get(status, f'status {status}')}")


def integers(numbers):
    """Numbers as dnnl_dims_t."""
    return (c_int64 * 12)(*numbers)


class Layout:
    """How numbers lie in memory: their shape, type (FLOAT32, …) and strides in elements; dense, row by row, without `strides`.

    Where they are part of a larger array, `whole` is that one's layout, and `offset` (in elements) where the part begins.
    """

    def __init__(self, shape, dtype, strides=None, whole=None, offset=0):
        strides = strides or [math.prod(shape[i + 1:]) for i in range(len(shape))]
        handle = c_void_p()
        check(library().dnnl_memory_desc_create_with_strides(byref(handle), len(shape), integers(shape), dtype,
                                                             integers(strides)))
        self._set(handle, dtype)
        if whole:
            self.size, self.start = whole.size, offset * SIZES[dtype]

    @classmethod
    def any(cls, shape, dtype):
        """A layout that a primitive may choose."""
        handle = c_void_p()
        check(library().dnnl_memory_desc_create_with_tag(byref(handle), len(shape), integers(shape), dtype, 1))  # 1: any
        return cls.of(handle)

    @classmethod
    def of(cls, handle):
        """The layout of which the library gave this handle."""
        layout = cls.__new__(cls)
        layout._set(handle, BYTES)
        return layout

    def _set(self, handle, dtype):
        self.handle, self.dtype = handle, dtype
        self.size, self.start = library().dnnl_memory_desc_get_size(handle), 0  # bytes


class Array:
    """Numbers that lie as `layout` says: not yet written, or those of a `tensor`.

    Raises ValueError for a tensor that lies otherwise: nonsense would come out.
    """

    __slots__ = ("layout", "memory", "address")

    def __init__(self, layout, tensor=None):
        self.layout = layout
        if tensor is None:
            memory = np.empty(layout.size + ALIGNMENT, np.uint8)
            address = memory.__array_interface__["data"][0]
            start = -address % ALIGNMENT
            self.memory, self.address = memory[start:start + layout.size], address + start
            return
        if (DTYPES.get(tensor.dtype) != layout.dtype or math.prod(tensor.shape) * SIZES[layout.dtype] != layout.size
                or not tensor.is_contiguous() or not tensor.place.is_cpu_place()):
            raise ValueError(f"expected {layout.size} contiguous bytes of type {layout.dtype} on the CPU, not {tensor.dtype} "
                             f"{tensor.shape} on {tensor.place}")
        self.memory, self.address = tensor, tensor.data_ptr()


class Primitive:
    """An operation on given layouts: called with argument → Array, for each of its arguments, it computes at once.

    kind        as in the name of the function that makes it, dnnl_{kind}_primitive_desc_create
    parameters  of that function, in its order
    layouts     argument → Layout, None where the library chose it

    Raises RuntimeError for what the library does not know, and, called, ValueError for other arguments or sizes.
    """

    def __init__(self, kind, *parameters, layouts):
        dnnl, self.descriptor, self.handle = library(), c_void_p(), c_void_p()
        parameters = [one.handle if isinstance(one, Layout) else c_float(one) if isinstance(one, float) else one
                      for one in (*parameters, None)]  # at the end, attributes
        create = getattr(dnnl, f"dnnl_{kind}_primitive_desc_create")
        check(create(byref(self.descriptor), *parameters))
        check(dnnl.dnnl_primitive_create(byref(self.handle), self.descriptor))
        self.layouts = {argument: layout or self.chosen(argument) for argument, layout in layouts.items()}
        self.memories = {}
        for argument, layout in self.layouts.items():
            self.memories[argument] = memory = c_void_p()
            check(dnnl.dnnl_memory_create(byref(memory), layout.handle, dnnl.engine, None))
        self.arguments = (Argument * len(layouts))(*(Argument(*pair) for pair in self.memories.items()))

    def chosen(self, argument):
        """The layout that the library chose for an argument."""
        return Layout.of(c_void_p(library().dnnl_primitive_desc_query_md(self.descriptor, CHOSEN[argument], 0)))

    def __call__(self, arrays):
        dnnl = library()
        if arrays.keys() != self.layouts.keys():  # it would compute with what it was given before
            raise ValueError(f"expected the arguments {list(self.layouts)}, not {list(arrays)}")
        with dnnl.lock:  # a primitive's memories are its own, so one thread at a time
            for argument, array in arrays.items():
                layout = self.layouts[argument]
                if array.layout.size != layout.size:
                    raise ValueError(f"argument {argument}: {array.layout.size} bytes, not {layout.size}")
                dnnl.dnnl_memory_set_data_handle(self.memories[argument], array.address + layout.start)
            check(dnnl.dnnl_primitive_execute(self.handle, dnnl.stream, len(self.arguments), self.arguments))


class Argument(ctypes.Structure):
    """dnnl_exec_arg_t."""

    _fields_ = [("argument", c_int), ("memory", c_void_p)]


@lru_cache(maxsize=2000)
def copying(source, target):
    """The primitive that copies from one layout to another."""
    engine = library().engine
    return Primitive("reorder", source, engine, target, engine, layouts={SOURCE: source, TARGET: target})


def copy(array, target):
    """Copies an array into another, or into a new one of the layout `target`; returns it."""
    target = Array(target) if isinstance(target, Layout) else target
    copying(array.layout, target.layout)({SOURCE: array, TARGET: target})
    return target


def product(left, right, result):
    """The primitive that multiplies matrices, SOURCE [M, K] and WEIGHTS [K, N], and writes TARGET [M, N], in these layouts."""
    return Primitive("matmul", library().engine, left, right, None, result,
                     layouts={SOURCE: left, WEIGHTS: right, TARGET: result})
