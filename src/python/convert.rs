//! Conversion between the SDK's objects and ours. All names of the SDK that this library uses are in this file:
//! modules, public getters and setters, and the constructor. They are the same in SDK 5 to 8.

use std::sync::OnceLock;

use pyo3::exceptions::{PyException, PyImportError, PyMemoryError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyInt, PyList, PyString, PyType};

use super::clock::SdkClock;
use super::error::{Failure, add_null_handler, invalid_argument};
use super::token_functions::{TokenFunctions, Values};
use crate::domain::{Field, Row, Token, expiry};
use crate::store::Error;
use crate::store::error::Code;

const PACKAGE: &str = "zohocrmsdk";
const AUTHENTICATOR: &str = "zohocrmsdk.src.com.zoho.api.authenticator";
const API: &str = "zohocrmsdk.src.com.zoho.crm.api";
/// The method of `OAuthToken` that finds the row, decides whether to refresh, and saves.
const DECIDING_METHOD: &str = "get_token";
/// How many frames are searched for it. A subclass of a store and a few decorators may be in between.
const SEARCHED_FRAMES: usize = 8;
const EXCEPTION_CODE: &str = "TOKEN_STORE";
const NO_SDK: &str = "a token store needs the Zoho CRM Python SDK: pip install zohocrmsdk8_0 (or zohocrmsdk7_0, \
                      zohocrmsdk6_0, zohocrmsdk5_0)";

/// The getter, the setter and the constructor argument of a field. The user name is inside an object, `UserSignature`.
/// The constructor has no argument for the expiry.
const fn names(field: Field) -> (&'static str, &'static str, Option<&'static str>) {
    match field {
        Field::Id => ("get_id", "set_id", Some("id")),
        Field::UserName => ("get_user_signature", "set_user_signature", Some("user_signature")),
        Field::ClientId => ("get_client_id", "set_client_id", Some("client_id")),
        Field::ClientSecret => ("get_client_secret", "set_client_secret", Some("client_secret")),
        Field::RefreshToken => ("get_refresh_token", "set_refresh_token", Some("refresh_token")),
        Field::AccessToken => ("get_access_token", "set_access_token", Some("access_token")),
        Field::GrantToken => ("get_grant_token", "set_grant_token", Some("grant_token")),
        Field::ExpiryTime => ("get_expires_in", "set_expires_in", None),
        Field::RedirectUrl => ("get_redirect_url", "set_redirect_url", Some("redirect_url")),
        Field::ApiDomain => ("get_api_domain", "set_api_domain", Some("api_domain")),
    }
}

/// The classes of the SDK that a store uses.
pub(super) struct Sdk {
    oauth_token: Py<PyType>,
    user_signature: Py<PyType>,
    exception: Py<PyType>,
    token_store: Py<PyType>,
    functions: TokenFunctions,
    /// The name of the getter that each find and save calls.
    get_name: Py<PyString>,
    pub(super) clock: SdkClock,
}

static SDK: OnceLock<Sdk> = OnceLock::new();

impl Sdk {
    /// Imports the SDK, once. Raises `ImportError`, with the names of the packages, if none is installed.
    ///
    /// Two threads may import it at the same time. Neither waits for the other, because a child that is forked
    /// meanwhile would wait for ever.
    pub(super) fn get(py: Python<'_>) -> PyResult<&'static Self> {
        if let Some(sdk) = SDK.get() {
            return Ok(sdk);
        }
        let sdk = Self::import(py)?;
        Ok(SDK.get_or_init(|| sdk))
    }

    fn import(py: Python<'_>) -> PyResult<Self> {
        let class = |module: String, name: &str| -> PyResult<Py<PyType>> {
            Ok(py.import(module)?.getattr(name)?.cast_into::<PyType>()?.unbind())
        };
        let import = || -> PyResult<_> {
            // The SDK's modules import each other in a cycle. An import that begins with the authenticator works.
            Ok((
                class(format!("{AUTHENTICATOR}.oauth_token"), "OAuthToken")?,
                class(format!("{API}.user_signature"), "UserSignature")?,
                class(format!("{API}.exception.sdk_exception"), "SDKException")?,
                class(format!("{AUTHENTICATOR}.store.token_store"), "TokenStore")?,
            ))
        };
        let (oauth_token, user_signature, exception, token_store) = import().map_err(|error| {
            // If another module is missing, the SDK needs it. The error names that module.
            let missing = error.value(py).getattr("name").and_then(|name| name.extract::<String>());
            if !missing.is_ok_and(|name| name.split('.').next() == Some(PACKAGE)) {
                return error;
            }
            let missing = PyImportError::new_err(NO_SDK);
            missing.set_cause(py, Some(error));
            missing
        })?;
        add_null_handler(py)?;
        let functions = TokenFunctions::compile(oauth_token.bind(py), user_signature.bind(py), names)?;
        let get_name = PyString::intern(py, "get_name").unbind();
        let clock = SdkClock::new(py)?;
        Ok(Self { oauth_token, user_signature, exception, token_store, functions, get_name, clock })
    }

    /// Registers `class` as a virtual subclass of the SDK's `TokenStore`. Python does not check a virtual subclass for
    /// the abstract methods, so this does.
    pub(super) fn register(&self, class: &Bound<'_, PyType>) -> PyResult<()> {
        let py = class.py();
        let interface = self.token_store.bind(py);
        for method in interface.getattr("__abstractmethods__")?.try_iter()? {
            let method = method?.cast_into::<PyString>()?;
            if !class.hasattr(&method)? {
                return Err(PyImportError::new_err(format!(
                    "the installed SDK asks a token store for {method}(), which this version of zoho-token-store does \
                     not have: upgrade zoho-token-store"
                )));
            }
        }
        interface.call_method1("register", (class,))?;
        Ok(())
    }

    /// Makes the SDK's exception with this cause.
    pub(super) fn exception(&self, py: Python<'_>, cause: PyErr, message: &str) -> PyResult<PyErr> {
        let exception = self.exception.bind(py).call1((EXCEPTION_CODE, message))?;
        // Set afterwards: the constructor would append the text of the cause, which is the same as the message.
        exception.setattr("cause", cause.value(py))?;
        let exception = PyErr::from_value(exception);
        exception.set_cause(py, Some(cause));
        Ok(exception)
    }

    /// Returns the frame in which the SDK decides whether to refresh, if the SDK is the caller.
    ///
    /// The frame is recognized by the names of function and module, because another library may have wrapped the
    /// method.
    pub(super) fn deciding_frame<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let module = self.oauth_token.bind(py).module()?;
        let mut frame = py.import("sys")?.call_method0("_getframe")?;
        for _ in 0..SEARCHED_FRAMES {
            let name = frame.getattr("f_code")?.getattr("co_name")?;
            if name.eq(DECIDING_METHOD)? {
                let globals = frame.getattr("f_globals")?.cast_into::<PyDict>()?;
                if globals.get_item("__name__")?.is_some_and(|name| name.eq(&module).unwrap_or(false)) {
                    return Ok(Some(frame));
                }
            }
            frame = frame.getattr("f_back")?;
            if frame.is_none() {
                break;
            }
        }
        Ok(None)
    }

    /// Makes a token with these values.
    ///
    /// It calls the constructor: a token made with `object.__new__` lacks attributes that SDK 6 to 8 use.
    pub(super) fn make<'py>(&self, py: Python<'py>, token: Token<'_>) -> Result<Bound<'py, PyAny>, Failure> {
        Ok(self.functions.make(py, Field::ALL.map(|field| str_or_none(py, token.get(field))))?)
    }

    /// Makes a token for each row. A text that is equal in two consecutive rows, such as the client id, is one object.
    pub(super) fn make_all<'py>(&self, py: Python<'py>, rows: Vec<Row>) -> Result<Bound<'py, PyList>, Failure> {
        let _pause = GcPause::new(py)?;
        let made = PyList::empty(py);
        let mut last: Option<(Row, Values<'py>)> = None;
        for row in rows {
            let token = expiry::readable(row.token());
            let values = Field::ALL.map(|field| match &last {
                // Two equal expiries that are unreadable may differ afterwards.
                Some((last, values)) if field != Field::ExpiryTime && last.get(field) == token.get(field) => {
                    values[field as usize].clone()
                }
                _ => str_or_none(py, token.get(field)),
            });
            made.append(self.functions.make(py, values.clone())?)?;
            last = Some((row, values));
        }
        Ok(made)
    }

    /// Sets one field of a token.
    fn set_field(&self, token: &Bound<'_, PyAny>, field: Field, value: Option<&str>) -> Result<(), Failure> {
        let py = token.py();
        let mut values = no_changes(py);
        values[field as usize] = str_or_none(py, value);
        self.functions.set(token, values).map_err(|error| match exception_name(py, &error) {
            Some(name) => {
                let what = format!("the token's {} cannot be set ({name})", field.name());
                Failure::Store(Error::new(Code::TokenNotUpdated, "").with(what))
            }
            None => Failure::Python(error),
        })
    }

    /// Reads all fields of a token. Another object, or a field that is not text, is an invalid argument.
    pub(super) fn read<'py>(&self, object: &Bound<'py, PyAny>) -> Result<CallerToken<'py>, Failure> {
        let py = object.py();
        // An object whose class cannot be determined is not a token.
        if !object.is_instance(self.oauth_token.bind(py)).unwrap_or(false) {
            return Err(invalid_argument(format!(
                "an OAuthToken of the Zoho CRM SDK is needed, not an object of type {}",
                type_name(object)
            )));
        }
        let mut read = CallerToken { object: object.clone(), values: Default::default(), expiry_is_number: false };
        let values = self.functions.get(object);
        for field in Field::ALL {
            let value = match &values {
                Ok(values) => values.get_item(field as usize)?,
                // One of the getters failed. The message names the field, so each getter is called by itself.
                Err(error) if exception_name(py, error).is_some() => call_getter(object, field)?,
                Err(error) => return Err(Failure::Python(error.clone_ref(py))),
            };
            let value = if field == Field::UserName { self.user_name(value)? } else { value };
            read.expiry_is_number |= field == Field::ExpiryTime && value.is_instance_of::<PyInt>();
            read.values[field as usize] = field_text(field, &value)?;
        }
        Ok(read)
    }

    /// Returns the name in a token's `UserSignature`, or `None` if there is no signature.
    fn user_name<'py>(&self, signature: Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>, Failure> {
        let py = signature.py();
        if signature.is_none() {
            return Ok(signature);
        }
        if !signature.is_instance(self.user_signature.bind(py)).unwrap_or(false) {
            return Err(invalid_argument(format!(
                "the token's user_signature is of type {}, not a UserSignature",
                type_name(&signature)
            )));
        }
        signature.call_method0(self.get_name.bind(py)).map_err(|error| getter_failed(py, Field::UserName, error))
    }
}

/// A token object of the caller, and the ten values that were read from it.
pub(super) struct CallerToken<'py> {
    object: Bound<'py, PyAny>,
    values: [Option<Bound<'py, PyString>>; Field::COUNT],
    /// The expiry is an `int`, which the SDK does not expect.
    expiry_is_number: bool,
}

impl<'py> CallerToken<'py> {
    /// Borrows the values. This copies nothing, and the result can be used without the GIL.
    pub(super) fn token(&self) -> Token<'_> {
        // `field_text` has checked that each value has a UTF-8 form.
        Token::from_fn(|field| self.values[field as usize].as_ref()?.to_str().ok())
    }

    /// Sets the id of the object to the id of its row.
    pub(super) fn set_id(&self, sdk: &Sdk, id: &str) -> Result<(), Failure> {
        if self.token().get(Field::Id) == Some(id) { Ok(()) } else { sdk.set_field(&self.object, Field::Id, Some(id)) }
    }

    /// Sets each field of the object whose value differs between `before` and `completed`, and returns the object.
    /// `before` is what was read from the object. An expiry that is an `int` is set in any case, so that it becomes
    /// text.
    pub(super) fn complete(
        &self,
        sdk: &Sdk,
        before: Token<'_>,
        completed: Token<'_>,
    ) -> Result<Bound<'py, PyAny>, Failure> {
        let py = self.object.py();
        let must_set = |field: Field| {
            (field == Field::ExpiryTime && self.expiry_is_number) || completed.get(field) != before.get(field)
        };
        let mut values = no_changes(py);
        for field in Field::ALL.into_iter().filter(|&field| must_set(field)) {
            values[field as usize] = str_or_none(py, completed.get(field));
        }
        if let Err(error) = sdk.functions.set(&self.object, values) {
            if exception_name(py, &error).is_none() {
                return Err(Failure::Python(error));
            }
            // One of the setters failed. The message names the field, so each setter is called by itself.
            Field::ALL
                .into_iter()
                .filter(|&field| must_set(field))
                .try_for_each(|field| sdk.set_field(&self.object, field, completed.get(field)))?;
        }
        Ok(self.object.clone())
    }
}

fn call_getter<'py>(token: &Bound<'py, PyAny>, field: Field) -> Result<Bound<'py, PyAny>, Failure> {
    token.call_method0(names(field).0).map_err(|error| getter_failed(token.py(), field, error))
}

/// The arguments of [`TokenFunctions::set`] that call no setter.
fn no_changes(py: Python<'_>) -> Values<'_> {
    Field::ALL.map(|_| py.Ellipsis().into_bound(py))
}

fn str_or_none<'py>(py: Python<'py>, text: Option<&str>) -> Bound<'py, PyAny> {
    text.map_or_else(|| py.None().into_bound(py), |text| PyString::new(py, text).into_any())
}

/// Turns Python's cyclic garbage collector off until it is dropped.
///
/// Without this the collector visits the growing list of new tokens again and again, although none of them can be
/// garbage. For 100 000 tokens that takes most of the time.
struct GcPause<'py>(Option<Bound<'py, PyModule>>);

impl<'py> GcPause<'py> {
    fn new(py: Python<'py>) -> PyResult<Self> {
        let gc = py.import("gc")?;
        if !gc.call_method0("isenabled")?.is_truthy()? {
            return Ok(Self(None));
        }
        gc.call_method0("disable")?;
        Ok(Self(Some(gc)))
    }
}

impl Drop for GcPause<'_> {
    fn drop(&mut self) {
        if let Some(gc) = &self.0
            && let Err(error) = gc.call_method0("enable")
        {
            error.write_unraisable(gc.py(), None);
        }
    }
}

/// Returns the value of a field as text. Only an expiry may be a number (contract, section 6).
pub(super) fn field_text<'py>(
    field: Field,
    value: &Bound<'py, PyAny>,
) -> Result<Option<Bound<'py, PyString>>, Failure> {
    if value.is_none() {
        return Ok(None);
    }
    let text = if field == Field::ExpiryTime && value.is_instance_of::<PyInt>() && !value.is_instance_of::<PyBool>() {
        // `int.__repr__` writes the digits. A subclass such as `IntEnum` may have another `__repr__`.
        value
            .py()
            .get_type::<PyInt>()
            .call_method1("__repr__", (value,))
            .and_then(|digits| Ok(digits.cast_into::<PyString>()?))
            .map_err(|error| getter_failed(value.py(), field, error))?
    } else {
        let not_text =
            || invalid_argument(format!("the token's {} is of type {}, not str", field.name(), type_name(value)));
        value.cast::<PyString>().map_err(|_| not_text())?.clone()
    };
    require_utf8(&text, || format!("the token's {}", field.name()))?;
    Ok(Some(text))
}

/// Returns the access token that a caller passes as text. `None`: it is not a `str`.
pub(super) fn access_token<'py>(value: &Bound<'py, PyAny>) -> Result<Option<Bound<'py, PyString>>, Failure> {
    let Ok(text) = value.cast::<PyString>() else { return Ok(None) };
    require_utf8(text, || "the access token".to_owned())?;
    Ok(Some(text.clone()))
}

/// Returns the id that a caller passes to a method: a `str`, or `None` for an absent id.
pub(super) fn id<'py>(value: &Bound<'py, PyAny>) -> Result<Option<Bound<'py, PyString>>, Failure> {
    if value.is_none() {
        return Ok(None);
    }
    let text = value
        .cast::<PyString>()
        .map_err(|_| invalid_argument(format!("an id is a str, not an object of type {}", type_name(value))))?;
    require_utf8(text, || "the id".to_owned())?;
    Ok(Some(text.clone()))
}

/// Fails unless the text has a UTF-8 form. Python's own error is not used as the cause, because it contains the text.
fn require_utf8(text: &Bound<'_, PyString>, what: impl Fn() -> String) -> Result<(), Failure> {
    text.to_str().map(drop).map_err(|error| {
        if error.is_instance_of::<PyMemoryError>(text.py()) {
            return Failure::Python(error);
        }
        invalid_argument(format!("{} has no UTF-8 form (it contains half of a surrogate pair)", what()))
    })
}

/// The failure of a getter. The message has only the type of the exception, because its text may contain a secret.
fn getter_failed(py: Python<'_>, field: Field, error: PyErr) -> Failure {
    match exception_name(py, &error) {
        Some(name) => invalid_argument(format!("the token's {} cannot be read ({name})", field.name())),
        None => Failure::Python(error),
    }
}

/// Returns the name of an exception's type. `None` for an exception that ends a program, such as `KeyboardInterrupt`:
/// it is not an `Exception`, and must pass through.
pub(super) fn exception_name(py: Python<'_>, error: &PyErr) -> Option<String> {
    let name = || error.get_type(py).name().map_or_else(|_| "an exception".to_owned(), |name| name.to_string());
    error.is_instance_of::<PyException>(py).then(name)
}

/// Returns the name of an object's type, for messages.
pub(super) fn type_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "unknown".to_owned(), |name| name.to_string())
}
