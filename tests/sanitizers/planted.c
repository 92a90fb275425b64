/* A module with bugs, one a function: each is there for a tool to find. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Beyond the end of a block. */
static PyObject *overflow(PyObject *self, PyObject *unused)
{
    volatile Py_ssize_t end = 16;
    volatile char *block = malloc(end);
    block[end] = 1;
    free((void *)block);
    Py_RETURN_NONE;
}

/* In a block that is free. */
static PyObject *use_after_free(PyObject *self, PyObject *unused)
{
    volatile char *block = malloc(16);
    block[0] = 1;
    free((void *)block);
    return PyLong_FromLong(block[0]);
}

/* An object of Python's that one reference too few is left of. */
static PyObject *one_reference_less(PyObject *self, PyObject *unused)
{
    PyObject *value = PyBytes_FromStringAndSize(NULL, 100);
    Py_DECREF(value);
    return PyLong_FromSsize_t(Py_REFCNT(value));
}

/* A block that nobody has any more. */
static PyObject *leak(PyObject *self, PyObject *unused)
{
    volatile char *block = malloc(12345);
    block[0] = 1;
    block = NULL;
    Py_RETURN_NONE;
}

/* An object of Python's that one reference too many is left of. */
static PyObject *one_reference_more(PyObject *self, PyObject *unused)
{
    return PyLong_FromSsize_t(PyBytes_GET_SIZE(PyBytes_FromStringAndSize(NULL, 12345)));
}

/* A decision by what nobody has written. */
static PyObject *uninitialised(PyObject *self, PyObject *unused)
{
    volatile int *block = malloc(16);
    int found = block[2];
    free((void *)block);
    if (found == 42)
        Py_RETURN_TRUE;
    Py_RETURN_FALSE;
}

/* More than an int can hold. */
static PyObject *undefined(PyObject *self, PyObject *unused)
{
    volatile int largest = 0x7fffffff;
    return PyLong_FromLong(largest + 1);
}

static PyMethodDef methods[] = {
    {"overflow", overflow, METH_NOARGS, NULL},
    {"use_after_free", use_after_free, METH_NOARGS, NULL},
    {"one_reference_less", one_reference_less, METH_NOARGS, NULL},
    {"leak", leak, METH_NOARGS, NULL},
    {"one_reference_more", one_reference_more, METH_NOARGS, NULL},
    {"uninitialised", uninitialised, METH_NOARGS, NULL},
    {"undefined", undefined, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "planted", NULL, 0, methods};

PyMODINIT_FUNC PyInit_planted(void)
{
    return PyModuleDef_Init(&module);
}
