//! Python functions that read, change or make a token in one call.
//!
//! Rust would need ten calls for this, one for each field. Python calls a Python method with little more than half the
//! instructions that Rust needs. So this module compiles three lambdas. The names of the SDK's methods are an argument.

use std::ffi::CString;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::domain::Field;

/// The getter, the setter and the constructor argument of a field.
type Names = fn(Field) -> (&'static str, &'static str, Option<&'static str>);

/// The compiled functions. Each takes or returns the values in the order of [`Field::ALL`].
pub(super) struct TokenFunctions {
    get: Py<PyAny>,
    set: Py<PyAny>,
    make: Py<PyAny>,
}

/// The values of a token as Python objects.
pub(super) type Values<'py> = [Bound<'py, PyAny>; Field::COUNT];

impl TokenFunctions {
    pub(super) fn compile(
        oauth_token: &Bound<'_, PyType>,
        user_signature: &Bound<'_, PyType>,
        names: Names,
    ) -> PyResult<Self> {
        let py = oauth_token.py();
        let globals = PyDict::new(py);
        globals.set_item("OAuthToken", oauth_token)?;
        globals.set_item("UserSignature", user_signature)?;
        let function =
            |code: String| -> PyResult<Py<PyAny>> { Ok(py.eval(&CString::new(code)?, Some(&globals), None)?.unbind()) };
        let for_each = |code: &dyn Fn(Field) -> String| Field::ALL.map(code).join(", ");
        let parameters = for_each(&parameter);
        let getters = for_each(&|field| format!("token.{}()", names(field).0));
        let setters =
            for_each(&|field| format!("{} is ... or token.{}({})", parameter(field), names(field).1, value(field)));
        let arguments = constructor_arguments(oauth_token, names)?;
        let set_afterwards: Vec<String> = Field::ALL
            .into_iter()
            .filter(|&field| names(field).2.is_none())
            .map(|field| format!("{0} is None or token.{1}({0})", parameter(field), names(field).1))
            .collect();
        let set_afterwards = set_afterwards.join(", ");
        Ok(Self {
            get: function(format!("lambda token: ({getters})"))?,
            set: function(format!("lambda token, {parameters}: ({setters})"))?,
            make: function(format!("lambda {parameters}: (token := OAuthToken({arguments}), {set_afterwards})[0]"))?,
        })
    }

    /// Returns what all getters return. For the user name this is a `UserSignature`.
    pub(super) fn get<'py>(&self, token: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
        Ok(self.get.bind(token.py()).call1((token,))?.cast_into::<PyTuple>()?)
    }

    /// Calls the setter of each value that is not `...`. For the user name the value is a text.
    pub(super) fn set<'py>(&self, token: &Bound<'py, PyAny>, values: Values<'py>) -> PyResult<()> {
        let arguments = PyTuple::new(token.py(), std::iter::once(token.clone()).chain(values).collect::<Vec<_>>())?;
        self.set.bind(token.py()).call1(arguments).map(drop)
    }

    /// Makes a new token. For the user name the value is a text.
    pub(super) fn make<'py>(&self, py: Python<'py>, values: Values<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.make.bind(py).call1(PyTuple::new(py, values)?)
    }
}

/// The name of a field's parameter in the lambdas.
fn parameter(field: Field) -> String {
    format!("v{}", field as usize)
}

/// The Python expression for a field's value, as a setter or the constructor takes it.
fn value(field: Field) -> String {
    let name = parameter(field);
    if field == Field::UserName { format!("{name} if {name} is None else UserSignature({name})") } else { name }
}

/// Returns the arguments of the constructor. They are positional up to the first parameter that this library does not
/// know, because positional arguments take a third less time. The rest are keyword arguments.
fn constructor_arguments(oauth_token: &Bound<'_, PyType>, names: Names) -> PyResult<String> {
    let code = oauth_token.getattr("__init__")?.getattr("__code__")?;
    let count: usize = code.getattr("co_argcount")?.extract()?;
    let parameters: Vec<String> = code.getattr("co_varnames")?.extract()?;
    let field_of = |parameter: &String| Field::ALL.into_iter().find(|&field| names(field).2 == Some(parameter));
    // The first parameter is `self`.
    let positional: Vec<Field> = parameters.iter().take(count).skip(1).map_while(field_of).collect();
    let rest = Field::ALL.into_iter().filter(|field| !positional.contains(field));
    let keywords = rest.filter_map(|field| Some(format!("{}={}", names(field).2?, value(field))));
    Ok(positional.iter().map(|&field| value(field)).chain(keywords).collect::<Vec<_>>().join(", "))
}
