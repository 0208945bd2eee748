/* A filter of Envoy that decides requests by the code of a resolver, in Envoy's own process and threads.
 *
 * Envoy loads it as a dynamic module and calls the functions `envoy_dynamic_module_on_…` below; those named
 * `envoy_dynamic_module_callback_…` are Envoy's. Both are those of Envoy 1.40:
 * https://github.com/envoyproxy/envoy/blob/v1.40.0/source/extensions/dynamic_modules/abi/abi.h
 *
 * The filter runs Python (https://docs.python.org/3/extending/embedding.html) and has it decide a request by its path and headers; see
 * `tidegate.bootstrap.in_process`. What Python does not decide goes on as it came, so that the filter `ext_authz` asks a resolver. So
 * does a request that would have to wait for Python, as Envoy's thread has other requests to serve meanwhile.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The interface of Envoy. */

typedef struct {
  const char *at;
  size_t size;
} Text;

typedef struct {
  Text name;
  Text value;
} Header;

enum { REQUEST_HEADERS = 0, RESPONSE_HEADERS = 2 };
enum { CONTINUE = 0 };

extern bool envoy_dynamic_module_callback_is_validation_mode(void);
extern size_t envoy_dynamic_module_callback_http_get_headers_size(void *envoy, int kind);
extern bool envoy_dynamic_module_callback_http_get_headers(void *envoy, int kind, Header *headers);
extern bool envoy_dynamic_module_callback_http_set_header(void *envoy, int kind, Text name, Text value);
extern void envoy_dynamic_module_callback_http_set_dynamic_metadata_string(void *envoy, Text space, Text key, Text value);
extern void envoy_dynamic_module_callback_http_clear_route_cache(void *envoy);

#define TEXT(literal) ((Text){"" literal, sizeof(literal) - 1})

/* Where Envoy's configuration looks for them: `tidegate.envoy.in_process`. The plan is where `ext_authz` would put it. */
static const Text NAMESPACE = TEXT("envoy.filters.http.ext_authz");
static const Text DECIDED = TEXT("x-tidegate-decided");
static const Text PLAN = TEXT("x-tidegate-plan");

static const Text DECIDED_PATHS[] = {TEXT("/v2/models/"), TEXT("/inference.GRPCInferenceService/")};

/* What `ext_authz` is configured to keep from a resolver, and what says how a body comes. */
static const Text LEFT_OUT[] = {
    TEXT("content-type"), TEXT("content-length"), TEXT("te"), TEXT("transfer-encoding"),
};

/* What a head has for each header besides its name and its value: a colon, a blank, and the end of the line. */
enum { BYTES_OF_A_HEADER = 4 };

/* How many requests are with Python at a time: one that is decided, and one that waits for it, some 20 microseconds. */
enum { MOST_AT_A_TIME = 2 };

/* Python. */

static const char STARTED = 0;
static PyInterpreterState *interpreter = NULL;
static PyObject *decide = NULL;
static const char *is_busy = NULL; /* Of Python's side: it loads rules, for which a request would wait. */
static int at_a_time = 0;
static bool has_failed = false;
static __thread PyThreadState *thread_state = NULL;

/* Sets `interpreter`, `decide` and `is_busy`. The configuration has three parts with line ends between them: the Python to be, a folder
 * to import from first, and what `start` gets. Where Python fails, that is said on standard error, and `decide` stays NULL. */
static void start(Text configuration) {
  char *copy = strndup(configuration.at, configuration.size);
  char *rest = copy;
  const char *program = strsep(&rest, "\n");
  const char *folder = strsep(&rest, "\n");
  PyConfig config;
  PyConfig_InitPythonConfig(&config);
  config.install_signal_handlers = 0;
  config.safe_path = 1;
  PyStatus status = PyConfig_SetBytesString(&config, &config.program_name, program);
  if (!PyStatus_Exception(status)) status = PyConfig_SetBytesString(&config, &config.pythonpath_env, folder);
  if (!PyStatus_Exception(status)) status = Py_InitializeFromConfig(&config);
  PyConfig_Clear(&config);
  if (PyStatus_Exception(status)) {
    fprintf(stderr, "Python cannot be started in Envoy: %s\n", status.err_msg == NULL ? "?" : status.err_msg);
    free(copy);
    return;
  }
  interpreter = PyInterpreterState_Get();
  PyObject *module = PyImport_ImportModule("tidegate.bootstrap.in_process");
  PyObject *started = module == NULL ? NULL : PyObject_CallMethod(module, "start", "s", rest);
  Py_XDECREF(module);
  free(copy);
  PyObject *called = NULL, *busy = NULL;
  if (started != NULL && PyArg_ParseTuple(started, "OO!", &called, &PyByteArray_Type, &busy)) {
    /* They are kept for ever, as is the interpreter: other threads of its run until the process ends. */
    Py_INCREF(called);
    Py_INCREF(busy);
    is_busy = PyByteArray_AS_STRING(busy);
    decide = called;
  } else {
    fprintf(stderr, "Python cannot decide in Envoy; resolvers are asked about every request:\n");
    PyErr_Print();
  }
  Py_XDECREF(started);
  PyEval_SaveThread();
}

/* A request, and the headers that its answer gets. They follow the struct in memory, and then their texts. */
typedef struct {
  size_t count;
  Header *headers;
} Request;

static bool begins_with(Text text, Text start) { return text.size >= start.size && memcmp(text.at, start.at, start.size) == 0; }

static bool equals(Text text, Text other) { return text.size == other.size && memcmp(text.at, other.at, text.size) == 0; }

static bool is_left_out(Text name) {
  for (size_t number = 0; number < sizeof(LEFT_OUT) / sizeof(*LEFT_OUT); number++)
    if (equals(name, LEFT_OUT[number])) return true;
  return begins_with(name, TEXT("x-envoy-"));
}

static bool is_decided_path(Text path) {
  for (size_t number = 0; number < sizeof(DECIDED_PATHS) / sizeof(*DECIDED_PATHS); number++)
    if (begins_with(path, DECIDED_PATHS[number])) return true;
  return false;
}

/* Whether an authority is a name or an address with or without a port, and nothing else that one may be. */
static bool is_plain_authority(Text authority) {
  bool in_brackets = authority.size > 0 && authority.at[0] == '[', in_port = false;
  for (size_t at = in_brackets; at < authority.size; at++) {
    unsigned char byte = (unsigned char)authority.at[at];
    if (in_brackets && byte == ']') {
      in_brackets = false;
      if (at + 1 < authority.size && authority.at[at + 1] != ':') return false;
    } else if (!in_brackets && byte == ':') {
      if (in_port) return false;
      in_port = true;
    } else if (in_port) {
      if (!isdigit(byte)) return false;
    } else if (in_brackets) {
      if (!isxdigit(byte) && byte != ':' && byte != '.') return false;
    } else if (!isalnum(byte) && memchr(".-_", byte, 3) == NULL) {
      return false;
    }
  }
  return !in_brackets;
}

static Text value_of(const Header *headers, size_t count, Text name) {
  /* Names that begin with a colon come first, so this is short. */
  for (size_t number = 0; number < count; number++)
    if (equals(headers[number].name, name)) return headers[number].value;
  return (Text){NULL, 0};
}

static PyObject *bytes_of(Text text) { return PyBytes_FromStringAndSize(text.at, (Py_ssize_t)text.size); }

/* Appends a header to a list. Returns false with an exception set. */
static bool append(PyObject *list, Text name, Text value) {
  PyObject *pair = PyTuple_New(2), *first = bytes_of(name), *second = bytes_of(value);
  if (pair == NULL || first == NULL || second == NULL) {
    Py_XDECREF(pair);
    Py_XDECREF(first);
    Py_XDECREF(second);
    return false;
  }
  PyTuple_SET_ITEM(pair, 0, first);
  PyTuple_SET_ITEM(pair, 1, second);
  int failed = PyList_Append(list, pair);
  Py_DECREF(pair);
  return failed == 0;
}

/* Returns the headers of a request as Python gets them; NULL with an exception set. */
static PyObject *listed(const Header *headers, size_t count) {
  PyObject *list = PyList_New(0);
  for (size_t number = 0; list != NULL && number < count; number++) {
    Text name = headers[number].name;
    if (equals(name, TEXT(":authority"))) {
      name = TEXT("host");
    } else if (name.size == 0 || name.at[0] == ':' || is_left_out(name)) {
      continue;
    }
    if (!append(list, name, headers[number].value)) Py_CLEAR(list);
  }
  return list;
}

/* Reads a header from a pair of bytes. Returns false if it is none. */
static bool read_header(PyObject *pair, Header *header) {
  if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) return false;
  PyObject *name = PyTuple_GET_ITEM(pair, 0), *value = PyTuple_GET_ITEM(pair, 1);
  if (!PyBytes_Check(name) || !PyBytes_Check(value)) return false;
  header->name = (Text){PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name)};
  header->value = (Text){PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value)};
  return true;
}

static Text copied(char **to, Text text) {
  Text copy = {memcpy(*to, text.at, text.size), text.size};
  *to += text.size;
  return copy;
}

/* Keeps the headers that the answer gets. Returns false if they are none, or there is no memory for them. */
static bool keep(Request *request, PyObject *pairs) {
  size_t count = (size_t)PyList_GET_SIZE(pairs), size = count * sizeof(Header);
  Header header;
  for (size_t number = 0; number < count; number++) {
    if (!read_header(PyList_GET_ITEM(pairs, number), &header)) return false;
    size += header.name.size + header.value.size;
  }
  Header *kept = malloc(size);
  if (kept == NULL) return false;
  char *texts = (char *)(kept + count);
  for (size_t number = 0; number < count; number++) {
    read_header(PyList_GET_ITEM(pairs, number), &header);
    kept[number] = (Header){copied(&texts, header.name), copied(&texts, header.value)};
  }
  request->headers = kept;
  request->count = count;
  return true;
}

/* Does with a request what Python has decided. Returns whether that could be read; if not, nothing was done. */
static bool follow(void *envoy, Request *request, PyObject *directions) {
  PyObject *to_server, *to_caller, *plan;
  if (!PyArg_ParseTuple(directions, "O!O!O", &PyList_Type, &to_server, &PyList_Type, &to_caller, &plan)) return false;
  if (plan != Py_None && !PyBytes_Check(plan)) return false;
  Header header;
  for (Py_ssize_t number = 0; number < PyList_GET_SIZE(to_server); number++)
    if (!read_header(PyList_GET_ITEM(to_server, number), &header)) return false;
  if (!keep(request, to_caller)) return false;
  for (Py_ssize_t number = 0; number < PyList_GET_SIZE(to_server); number++) {
    read_header(PyList_GET_ITEM(to_server, number), &header);
    envoy_dynamic_module_callback_http_set_header(envoy, REQUEST_HEADERS, header.name, header.value);
  }
  envoy_dynamic_module_callback_http_set_dynamic_metadata_string(envoy, NAMESPACE, DECIDED, TEXT("true"));
  if (plan != Py_None) {
    Text value = {PyBytes_AS_STRING(plan), (size_t)PyBytes_GET_SIZE(plan)};
    envoy_dynamic_module_callback_http_set_dynamic_metadata_string(envoy, NAMESPACE, PLAN, value);
  }
  return true;
}

/* Says once that Python fails, by the kind of its exception: the message may hold values of the request. */
static void say_failed(void) {
  if (__atomic_exchange_n(&has_failed, true, __ATOMIC_RELAXED)) return;
  PyObject *kind = PyErr_Occurred();
  const char *name = kind != NULL && PyType_Check(kind) ? ((PyTypeObject *)kind)->tp_name : "a wrong answer";
  fprintf(stderr, "Python could not decide a request in Envoy (%s): a resolver is asked. This is said once.\n", name);
}

/* Has Python decide a request, in this thread. Returns whether it has. */
static bool ask(void *envoy, Request *request, const Header *headers, size_t count, Text path, size_t bytes) {
  if (thread_state == NULL) thread_state = PyThreadState_New(interpreter);
  PyEval_RestoreThread(thread_state);
  PyObject *method = bytes_of(value_of(headers, count, TEXT(":method")));
  PyObject *target = bytes_of(path), *list = listed(headers, count), *size = PyLong_FromSize_t(bytes), *directions = NULL;
  if (method != NULL && target != NULL && list != NULL && size != NULL)
    directions = PyObject_CallFunctionObjArgs(decide, method, target, list, size, NULL);
  bool is_decided = directions != NULL && directions != Py_None && follow(envoy, request, directions);
  if (!is_decided && directions != Py_None) say_failed();
  PyErr_Clear();
  Py_XDECREF(size);
  Py_XDECREF(method);
  Py_XDECREF(target);
  Py_XDECREF(list);
  Py_XDECREF(directions);
  PyEval_SaveThread();
  return is_decided;
}

/* What Envoy calls. */

const char *envoy_dynamic_module_on_program_init(void) { return "v0.2.0"; }

const void *envoy_dynamic_module_on_http_filter_config_new(void *envoy, Text name, Text configuration) {
  (void)envoy, (void)name;
  /* A configuration that is only checked starts nothing; one that comes again finds Python started. Envoy works without Python, too. */
  if (!envoy_dynamic_module_callback_is_validation_mode() && interpreter == NULL) start(configuration);
  return &STARTED;
}

const void *envoy_dynamic_module_on_http_filter_new(const void *config, void *envoy) {
  (void)config, (void)envoy;
  return calloc(1, sizeof(Request));
}

void envoy_dynamic_module_on_http_filter_destroy(const void *request) {
  free(((Request *)request)->headers);
  free((void *)request);
}

int envoy_dynamic_module_on_http_filter_request_headers(void *envoy, const void *request, bool is_whole) {
  (void)is_whole;
  if (decide == NULL || __atomic_load_n(is_busy, __ATOMIC_RELAXED)) return CONTINUE;
  size_t count = envoy_dynamic_module_callback_http_get_headers_size(envoy, REQUEST_HEADERS), bytes = 0;
  Header headers[count + 1];
  if (!envoy_dynamic_module_callback_http_get_headers(envoy, REQUEST_HEADERS, headers)) return CONTINUE;
  Text path = value_of(headers, count, TEXT(":path"));
  if (path.at == NULL || !is_decided_path(path)) return CONTINUE;
  for (size_t number = 0; number < count; number++) {
    bytes += headers[number].name.size + headers[number].value.size + BYTES_OF_A_HEADER;
    if (equals(headers[number].name, TEXT("expect"))) return CONTINUE;
    if (equals(headers[number].name, TEXT(":authority")) && !is_plain_authority(headers[number].value)) return CONTINUE;
  }
  bool is_decided = false;
  if (__atomic_fetch_add(&at_a_time, 1, __ATOMIC_RELAXED) < MOST_AT_A_TIME)
    is_decided = ask(envoy, (Request *)request, headers, count, path, bytes);
  __atomic_fetch_sub(&at_a_time, 1, __ATOMIC_RELAXED);
  /* The route was chosen before. */
  if (is_decided) envoy_dynamic_module_callback_http_clear_route_cache(envoy);
  return CONTINUE;
}

int envoy_dynamic_module_on_http_filter_response_headers(void *envoy, const void *request, bool is_whole) {
  (void)is_whole;
  const Request *decided = request;
  for (size_t number = 0; number < decided->count; number++) {
    const Header *header = &decided->headers[number];
    envoy_dynamic_module_callback_http_set_header(envoy, RESPONSE_HEADERS, header->name, header->value);
  }
  return CONTINUE;
}

/* Envoy asks for these, too; there is nothing to do. It calls none of those whose arguments are left out. */

void envoy_dynamic_module_on_http_filter_config_destroy(const void *config) { (void)config; }

int envoy_dynamic_module_on_http_filter_request_body(void *envoy, const void *request, bool is_whole) {
  (void)envoy, (void)request, (void)is_whole;
  return CONTINUE;
}

int envoy_dynamic_module_on_http_filter_request_trailers(void *envoy, const void *request) {
  (void)envoy, (void)request;
  return CONTINUE;
}

int envoy_dynamic_module_on_http_filter_response_body(void *envoy, const void *request, bool is_whole) {
  (void)envoy, (void)request, (void)is_whole;
  return CONTINUE;
}

int envoy_dynamic_module_on_http_filter_response_trailers(void *envoy, const void *request) {
  (void)envoy, (void)request;
  return CONTINUE;
}

void envoy_dynamic_module_on_http_filter_stream_complete(void *envoy, const void *request) { (void)envoy, (void)request; }

void envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(void *envoy, const void *request) {
  (void)envoy, (void)request;
}

void envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(void *envoy, const void *request) {
  (void)envoy, (void)request;
}

void envoy_dynamic_module_on_http_filter_http_callout_done(void) {}
void envoy_dynamic_module_on_http_filter_http_stream_headers(void) {}
void envoy_dynamic_module_on_http_filter_http_stream_data(void) {}
void envoy_dynamic_module_on_http_filter_http_stream_trailers(void) {}
void envoy_dynamic_module_on_http_filter_http_stream_complete(void) {}
void envoy_dynamic_module_on_http_filter_http_stream_reset(void) {}
void envoy_dynamic_module_on_http_filter_scheduled(void) {}
