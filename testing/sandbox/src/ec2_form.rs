//! The parameters of EC2's query API.

use std::collections::BTreeMap;

use world::ec2::{Code, Failure, Filter};

/// A query's parameters.
pub(crate) type Form = BTreeMap<String, String>;

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The values of `<prefix>.1`, `<prefix>.2`, ...
pub(crate) fn list(form: &Form, prefix: &str) -> Vec<String> {
    (1..).map_while(|n| form.get(&format!("{prefix}.{n}")).cloned()).collect()
}

pub(crate) fn filters(form: &Form) -> Vec<Filter> {
    (1..)
        .map_while(|n| {
            let name = form.get(&format!("Filter.{n}.Name"))?.clone();
            Some(Filter { name, values: list(form, &format!("Filter.{n}.Value")) })
        })
        .collect()
}

pub(crate) fn number<N: std::str::FromStr>(form: &Form, name: &str) -> Result<Option<N>, Failure> {
    form.get(name).map(|text| text.parse()).transpose().map_err(|_| Failure::Refused {
        code: Code::InvalidParameterValue,
        message: format!("Value for parameter {name} is invalid."),
    })
}

pub(crate) fn required(form: &Form, name: &str) -> Result<String, Failure> {
    form.get(name).cloned().ok_or_else(|| Failure::Refused {
        code: Code::MissingParameter,
        message: format!("The request must contain the parameter {name}"),
    })
}
