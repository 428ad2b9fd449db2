"""Parallel kernels in a process that was forked from one that has run some: they go on, in one thread.

GNU OpenMP cannot be used after a fork, because the threads of its pool are not copied. Numba notices and ends the
child with SIGTERM; a child of the child would wait for the threads forever. Kernels are therefore linked to a loop of
ours in place of Numba's `parallel_for`. It passes the work on to OpenMP, and after a fork it does all of it itself.
The other threading layers of Numba, TBB and workqueue, start new threads after a fork and need nothing.
"""

import ctypes
import importlib
import os
from typing import Any

import llvmlite.binding as llvm
import numba
from llvmlite import ir

KNOWN = (0, 61), (0, 68)
"""First and last version of Numba whose `parallel_for` is known to take these arguments; others are left alone."""

_forked = ctypes.c_uint8(0)  # read by compiled code
_compiled: list[llvm.ExecutionEngine] = []  # keeps that code in memory


def serve_forked_children() -> None:
    """Make parallel kernels that are linked from now on usable after a fork; to be called once.

    With a version of Numba that is not `KNOWN` nothing is done, and Numba ends a forked child that runs a kernel.
    """
    if not KNOWN[0] <= numba.version_info.short <= KNOWN[1]:
        return
    try:
        omppool: Any = importlib.import_module("numba.np.ufunc.omppool")  # loads OpenMP, starts no threads
    except ImportError:  # Numba uses another threading layer
        return
    # a word for each pointer and size, and the number of threads, as of `numba_parallel_for`
    word = ir.IntType(8 * ctypes.sizeof(ctypes.c_void_p))
    arguments = [word] * 7 + [ir.IntType(32)]
    module = ir.Module("gmtensor_parallel_for")
    module.triple = llvm.get_process_triple()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), module.name)
    builder = ir.IRBuilder(function.append_basic_block())
    forked = builder.load(builder.inttoptr(word(ctypes.addressof(_forked)), ir.IntType(8).as_pointer()))
    with builder.if_else(builder.icmp_unsigned("!=", forked, ir.IntType(8)(0))) as (alone, together):
        with alone:  # the body, arrays, sizes, steps, data: a body loops over all that it is given
            body = ir.FunctionType(ir.VoidType(), [word] * 4).as_pointer()
            builder.call(builder.inttoptr(function.args[0], body), function.args[1:5])
        with together:
            openmp = ir.FunctionType(ir.VoidType(), arguments).as_pointer()
            builder.call(builder.inttoptr(word(omppool.parallel_for), openmp), function.args)
    builder.ret_void()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), machine)
    engine.finalize_object()
    _compiled.append(engine)
    omppool.parallel_for = engine.get_function_address(module.name)  # what Numba gives to kernels when OpenMP starts
    if _layer() == "omp":  # it has started already
        llvm.add_symbol("numba_parallel_for", omppool.parallel_for)
    os.register_at_fork(after_in_child=_use_one_thread)


def _use_one_thread() -> None:
    if _layer() == "omp":  # else no kernel has run before the fork: this process may start threads of its own
        _forked.value = 1
        numba.set_num_threads(1)


def _layer() -> str | None:
    """Threading layer that Numba has started."""
    try:
        return numba.threading_layer()
    except ValueError:
        return None
