//! Functions of Python's own that do with a token, in one call, what takes ten from here: Python calls a method of its own
//! with little more than half the instructions. Knows how they are written, not what the SDK's names are.

use std::ffi::CString;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::domain::Field;

/// Getter, setter and constructor argument of a field.
type Names = fn(Field) -> (&'static str, &'static str, Option<&'static str>);

/// Each takes or gives the values in the order of the fields.
pub(super) struct Calls {
    get: Py<PyAny>,
    set: Py<PyAny>,
    make: Py<PyAny>,
}

/// The values of a token as Python's objects.
pub(super) type Values<'py> = [Bound<'py, PyAny>; Field::COUNT];

impl Calls {
    pub(super) fn new(
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
        let each = |write: &dyn Fn(Field) -> String| Field::ALL.map(write).join(", ");
        let values = each(&name);
        let get = each(&|field| format!("token.{}()", names(field).0));
        let set = each(&|field| format!("{} is ... or token.{}({})", name(field), names(field).1, value(field)));
        let arguments = arguments(oauth_token, names)?;
        let late = Field::ALL.into_iter().filter(|&field| names(field).2.is_none());
        let late: Vec<_> =
            late.map(|field| format!("{0} is None or token.{1}({0})", name(field), names(field).1)).collect();
        let late = late.join(", ");
        Ok(Self {
            get: function(format!("lambda token: ({get})"))?,
            set: function(format!("lambda token, {values}: ({set})"))?,
            make: function(format!("lambda {values}: (token := OAuthToken({arguments}), {late})[0]"))?,
        })
    }

    /// What all getters return.
    pub(super) fn get<'py>(&self, token: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
        Ok(self.get.bind(token.py()).call1((token,))?.cast_into::<PyTuple>()?)
    }

    /// Calls the setters of all values but `...`; of the user only the name is given.
    pub(super) fn set<'py>(&self, token: &Bound<'py, PyAny>, values: Values<'py>) -> PyResult<()> {
        let arguments = PyTuple::new(token.py(), std::iter::once(token.clone()).chain(values).collect::<Vec<_>>())?;
        self.set.bind(token.py()).call1(arguments).map(drop)
    }

    /// A new token; of the user only the name is given.
    pub(super) fn make<'py>(&self, py: Python<'py>, values: Values<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.make.bind(py).call1(PyTuple::new(py, values)?)
    }
}

fn name(field: Field) -> String {
    format!("v{}", field as usize)
}

fn value(field: Field) -> String {
    let name = name(field);
    if field == Field::UserName { format!("{name} if {name} is None else UserSignature({name})") } else { name }
}

/// The constructor's arguments by their places as far as these are known, which saves a third of the time, then by their names.
fn arguments(oauth_token: &Bound<'_, PyType>, names: Names) -> PyResult<String> {
    let py = oauth_token.py();
    let code = oauth_token.getattr(intern!(py, "__init__"))?.getattr(intern!(py, "__code__"))?;
    let count: usize = code.getattr(intern!(py, "co_argcount"))?.extract()?;
    let parameters: Vec<String> = code.getattr(intern!(py, "co_varnames"))?.extract()?;
    let field_of = |parameter: &String| Field::ALL.into_iter().find(|&field| names(field).2 == Some(parameter));
    let in_place: Vec<Field> = parameters.iter().take(count).skip(1).map_while(field_of).collect();
    let by_place = in_place.iter().map(|&field| value(field));
    let rest = Field::ALL.into_iter().filter(|field| !in_place.contains(field));
    let by_name = rest.filter_map(|field| Some(format!("{}={}", names(field).2?, value(field))));
    Ok(by_place.chain(by_name).collect::<Vec<_>>().join(", "))
}
