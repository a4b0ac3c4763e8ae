/* libpq for the backend `postgres`: what its module libpq_shared does by ctypes where there is Python. */
#include <Python.h>

#include <libpq-fe.h>

static PyObject *Error; /* the class libpq.Error, handed over by `set_error` */
static PyTypeObject Connection_type, Result_type;

typedef struct {
    PyObject_HEAD
    PGconn *connection;
} Connection;

typedef struct {
    PyObject_HEAD
    PGresult *result;
} Result;

static PyObject *raise(const char *text)
{
    PyErr_SetString(Error != NULL ? Error : PyExc_RuntimeError, text);
    return NULL;
}

/* What libpq has to say: its texts are in the server's encoding, whichever that is. */
static PyObject *raise_of(PGconn *connection)
{
    const char *message = PQerrorMessage(connection);
    PyObject *text = PyUnicode_DecodeUTF8(message, strlen(message), "replace");
    if (text != NULL) {
        PyErr_SetObject(Error != NULL ? Error : PyExc_RuntimeError, text);
        Py_DECREF(text);
    }
    return NULL;
}

static PyObject *bytes_or_none(const char *text)
{
    if (text == NULL) {
        Py_RETURN_NONE;
    }
    return PyBytes_FromString(text);
}

static PGconn *open_connection(PyObject *self)
{
    PGconn *connection = ((Connection *)self)->connection;
    if (connection == NULL) {
        raise("the connection is closed");
    }
    return connection;
}

static PyStructSequence_Field option_fields[] = {{"keyword", NULL}, {"val", NULL}, {NULL, NULL}};
static PyStructSequence_Desc option_description = {"_libpq.ConninfoOption", NULL, option_fields, 2};
static PyTypeObject *Option_type;

/* A list of libpq's options, each with `keyword` and `val`. They are freed. */
static PyObject *listed(PQconninfoOption *options)
{
    PyObject *list = PyList_New(0);
    for (PQconninfoOption *option = options; list != NULL && option->keyword != NULL; option++) {
        PyObject *made = PyStructSequence_New(Option_type);
        PyObject *keyword = PyBytes_FromString(option->keyword), *value = bytes_or_none(option->val);
        if (made == NULL || keyword == NULL || value == NULL) {
            Py_XDECREF(keyword);
            Py_XDECREF(value);
            Py_CLEAR(list);
        } else {
            PyStructSequence_SetItem(made, 0, keyword);
            PyStructSequence_SetItem(made, 1, value);
            if (PyList_Append(list, made) < 0) {
                Py_CLEAR(list);
            }
        }
        Py_XDECREF(made);
    }
    PQconninfoFree(options);
    return list;
}

/* libpq itself would write the server's notices to standard error. */
static void ignore(void *unused, const char *notice)
{
}

static PyObject *connect_start(PyObject *unused, PyObject *conninfo)
{
    const char *text = PyBytes_AsString(conninfo);
    if (text == NULL) {
        return NULL;
    }
    PGconn *connection;
    Py_BEGIN_ALLOW_THREADS
    connection = PQconnectStart(text);
    Py_END_ALLOW_THREADS
    if (connection == NULL) {
        return PyErr_NoMemory();
    }
    PQsetNoticeProcessor(connection, ignore, NULL);
    Connection *self = PyObject_New(Connection, &Connection_type);
    if (self == NULL) {
        PQfinish(connection);
        return NULL;
    }
    self->connection = connection;
    return (PyObject *)self;
}

static PyObject *finish(PyObject *self, PyObject *unused)
{
    PGconn *connection = ((Connection *)self)->connection;
    ((Connection *)self)->connection = NULL;
    if (connection != NULL) {
        PQfinish(connection);
    }
    Py_RETURN_NONE;
}

static void connection_dealloc(PyObject *self)
{
    Py_XDECREF(finish(self, NULL));
    PyObject_Free(self);
}

static PyObject *connect_poll(PyObject *self, PyObject *unused)
{
    PGconn *connection = open_connection(self);
    if (connection == NULL) {
        return NULL;
    }
    int state;
    Py_BEGIN_ALLOW_THREADS
    state = PQconnectPoll(connection);
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(state);
}

static PyObject *consume_input(PyObject *self, PyObject *unused)
{
    PGconn *connection = open_connection(self);
    if (connection == NULL) {
        return NULL;
    }
    if (PQconsumeInput(connection) == 0) {
        return raise_of(connection);
    }
    Py_RETURN_NONE;
}

/* Whether something was notified; that is taken away. */
static PyObject *notifies(PyObject *self, PyObject *unused)
{
    PGconn *connection = open_connection(self);
    if (connection == NULL) {
        return NULL;
    }
    PGnotify *notify = PQnotifies(connection);
    PQfreemem(notify);
    return PyBool_FromLong(notify != NULL);
}

static PyObject *send_query_params(PyObject *self, PyObject *arguments)
{
    const char *statement;
    PyObject *list;
    PGconn *connection = open_connection(self);
    if (connection == NULL || !PyArg_ParseTuple(arguments, "yO!", &statement, &PyList_Type, &list)) {
        return NULL;
    }
    Py_ssize_t count = PyList_GET_SIZE(list);
    const char **values = PyMem_Calloc(count + 1, sizeof *values);
    if (values == NULL) {
        return PyErr_NoMemory();
    }
    int sent = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        char *value;
        if (PyBytes_AsStringAndSize(PyList_GET_ITEM(list, i), &value, NULL) < 0) { /* a zero inside is an error too */
            goto done;
        }
        values[i] = value;
    }
    sent = PQsendQueryParams(connection, statement, (int)count, NULL, values, NULL, NULL, 0);
    if (!sent) {
        raise_of(connection);
    }
done:
    PyMem_Free(values);
    if (!sent) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *flush(PyObject *self, PyObject *unused)
{
    PGconn *connection = open_connection(self);
    if (connection == NULL) {
        return NULL;
    }
    int left = PQflush(connection);
    return left < 0 ? raise_of(connection) : PyLong_FromLong(left);
}

static PyObject *is_busy(PyObject *self, PyObject *unused)
{
    PGconn *connection = open_connection(self);
    return connection != NULL ? PyLong_FromLong(PQisBusy(connection)) : NULL;
}

static PyObject *get_result(PyObject *self, PyObject *unused)
{
    PGconn *connection = open_connection(self);
    if (connection == NULL) {
        return NULL;
    }
    PGresult *result = PQgetResult(connection);
    if (result == NULL) {
        Py_RETURN_NONE;
    }
    Result *made = PyObject_New(Result, &Result_type);
    if (made == NULL) {
        PQclear(result);
        return NULL;
    }
    made->result = result;
    return (PyObject *)made;
}

static PyObject *set_error_verbosity(PyObject *self, PyObject *verbosity)
{
    PGconn *connection = open_connection(self);
    int value = (int)PyLong_AsLong(verbosity);
    if (connection == NULL || PyErr_Occurred()) {
        return NULL;
    }
    return PyLong_FromLong(PQsetErrorVerbosity(connection, value));
}

static PyObject *make_nonblocking(PyObject *self, PyObject *unused)
{
    PGconn *connection = open_connection(self);
    if (connection == NULL) {
        return NULL;
    }
    if (PQsetnonblocking(connection, 1) < 0) {
        return raise_of(connection);
    }
    Py_RETURN_NONE;
}

static PyObject *get_status(PyObject *self, void *unused)
{
    /* As PQstatus has it: what is closed is bad. */
    return PyLong_FromLong(PQstatus(((Connection *)self)->connection));
}

static PyObject *get_socket(PyObject *self, void *unused)
{
    PGconn *connection = open_connection(self);
    if (connection == NULL) {
        return NULL;
    }
    int socket = PQsocket(connection);
    return socket < 0 ? raise("the connection is lost") : PyLong_FromLong(socket);
}

static PyObject *get_error_message(PyObject *self, void *unused)
{
    return PyBytes_FromString(PQerrorMessage(((Connection *)self)->connection));
}

typedef char *(*Text)(const PGconn *);

/* A text of the connection, by the function in the table below. */
static PyObject *get_text(PyObject *self, void *function)
{
    PGconn *connection = open_connection(self);
    if (connection == NULL) {
        return NULL;
    }
    const char *text = ((Text)function)(connection);
    return PyBytes_FromString(text != NULL ? text : "");
}

static PyObject *get_backend_pid(PyObject *self, void *unused)
{
    PGconn *connection = open_connection(self);
    return connection != NULL ? PyLong_FromLong(PQbackendPID(connection)) : NULL;
}

static PyObject *get_needs_password(PyObject *self, void *unused)
{
    PGconn *connection = open_connection(self);
    return connection != NULL ? PyBool_FromLong(PQconnectionNeedsPassword(connection)) : NULL;
}

static PyObject *get_info(PyObject *self, void *unused)
{
    PGconn *connection = open_connection(self);
    if (connection == NULL) {
        return NULL;
    }
    PQconninfoOption *options = PQconninfo(connection);
    return options != NULL ? listed(options) : PyErr_NoMemory();
}

static PyMethodDef connection_methods[] = {
    {"connect_start", connect_start, METH_O | METH_STATIC, NULL},
    {"finish", finish, METH_NOARGS, NULL},
    {"connect_poll", connect_poll, METH_NOARGS, NULL},
    {"consume_input", consume_input, METH_NOARGS, NULL},
    {"notifies", notifies, METH_NOARGS, NULL},
    {"send_query_params", send_query_params, METH_VARARGS, NULL},
    {"flush", flush, METH_NOARGS, NULL},
    {"is_busy", is_busy, METH_NOARGS, NULL},
    {"get_result", get_result, METH_NOARGS, NULL},
    {"make_nonblocking", make_nonblocking, METH_NOARGS, NULL},
    {"set_error_verbosity", set_error_verbosity, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef connection_fields[] = {
    {"status", get_status, NULL, NULL, NULL},
    {"socket", get_socket, NULL, NULL, NULL},
    {"error_message", get_error_message, NULL, NULL, NULL},
    {"user", get_text, NULL, NULL, PQuser},
    {"host", get_text, NULL, NULL, PQhost},
    {"hostaddr", get_text, NULL, NULL, PQhostaddr},
    {"port", get_text, NULL, NULL, PQport},
    {"backend_pid", get_backend_pid, NULL, NULL, NULL},
    {"needs_password", get_needs_password, NULL, NULL, NULL},
    {"info", get_info, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject Connection_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "_libpq.PGconn",
    .tp_basicsize = sizeof(Connection),
    .tp_dealloc = connection_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_methods = connection_methods,
    .tp_getset = connection_fields,
};

static void result_dealloc(PyObject *self)
{
    PQclear(((Result *)self)->result);
    PyObject_Free(self);
}

static PyObject *result_status(PyObject *self, void *unused)
{
    return PyLong_FromLong(PQresultStatus(((Result *)self)->result));
}

static PyObject *result_rows(PyObject *self, void *unused)
{
    return PyLong_FromLong(PQntuples(((Result *)self)->result));
}

static PyObject *result_columns(PyObject *self, void *unused)
{
    return PyLong_FromLong(PQnfields(((Result *)self)->result));
}

static PyObject *result_error_message(PyObject *self, void *unused)
{
    return PyBytes_FromString(PQresultErrorMessage(((Result *)self)->result));
}

static PyObject *error_field(PyObject *self, PyObject *field)
{
    int code = (int)PyLong_AsLong(field);
    return PyErr_Occurred() ? NULL : bytes_or_none(PQresultErrorField(((Result *)self)->result, code));
}

static PyObject *get_value(PyObject *self, PyObject *arguments)
{
    int row, column;
    PGresult *result = ((Result *)self)->result;
    if (!PyArg_ParseTuple(arguments, "ii", &row, &column)) {
        return NULL;
    }
    if (row < 0 || row >= PQntuples(result) || column < 0 || column >= PQnfields(result)) {
        PyErr_SetString(PyExc_IndexError, "no such row or column");
        return NULL;
    }
    if (PQgetisnull(result, row, column)) {
        Py_RETURN_NONE;
    }
    return PyBytes_FromStringAndSize(PQgetvalue(result, row, column), PQgetlength(result, row, column));
}

static PyMethodDef result_methods[] = {
    {"error_field", error_field, METH_O, NULL},
    {"get_value", get_value, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef result_fields[] = {
    {"status", result_status, NULL, NULL, NULL},
    {"ntuples", result_rows, NULL, NULL, NULL},
    {"nfields", result_columns, NULL, NULL, NULL},
    {"error_message", result_error_message, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject Result_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "_libpq.PGresult",
    .tp_basicsize = sizeof(Result),
    .tp_dealloc = result_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_methods = result_methods,
    .tp_getset = result_fields,
};

/* parse(conninfo): the options that it names, or libpq.Error with what is wrong with it. */
static PyObject *parse(PyObject *self, PyObject *conninfo)
{
    const char *text = PyBytes_AsString(conninfo);
    if (text == NULL) {
        return NULL;
    }
    char *message = NULL;
    PQconninfoOption *options = PQconninfoParse(text, &message);
    if (options == NULL) {
        PyObject *why = message != NULL ? PyUnicode_DecodeUTF8(message, strlen(message), "replace") : NULL;
        PQfreemem(message);
        if (why != NULL) {
            PyErr_SetObject(Error != NULL ? Error : PyExc_RuntimeError, why);
            Py_DECREF(why);
        } else if (!PyErr_Occurred()) {
            PyErr_NoMemory();
        }
        return NULL;
    }
    return listed(options);
}

static PyObject *set_error(PyObject *self, PyObject *error)
{
    Py_XSETREF(Error, Py_NewRef(error));
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"parse", parse, METH_O, NULL},
    {"set_error", set_error, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_libpq", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit__libpq(void)
{
    PyObject *made = PyModule_Create(&module);
    Option_type = PyStructSequence_NewType(&option_description);
    if (made == NULL || Option_type == NULL || PyModule_AddType(made, &Connection_type) < 0 || PyModule_AddType(made, &Result_type) < 0) {
        Py_XDECREF(made);
        return NULL;
    }
    return made;
}
