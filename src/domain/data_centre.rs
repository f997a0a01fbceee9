//! The name of the data centre and environment that an API domain belongs to.

/// Each data centre and the end of its API domain (Zoho's documentation, "Multi-DC support").
const DATA_CENTRES: [(&str, &str); 10] = [
    ("US", "zohoapis.com"),
    ("EU", "zohoapis.eu"),
    ("IN", "zohoapis.in"),
    ("AU", "zohoapis.com.au"),
    ("CN", "zohoapis.com.cn"),
    ("JP", "zohoapis.jp"),
    ("CA", "zohoapis.ca"),
    ("SA", "zohoapis.sa"),
    ("UK", "zohoapis.uk"),
    ("AE", "zohoapis.ae"),
];

/// Each environment and the beginning of its API domain. Production has no name of its own.
const ENVIRONMENTS: [(&str, &str); 3] = [("", "www."), (" sandbox", "sandbox."), (" developer", "developer.")];

/// Returns a name such as "US" or "EU sandbox", or `None` if the domain is not one of Zoho's.
#[must_use]
pub fn name(api_domain: &str) -> Option<String> {
    let host = api_domain.strip_prefix("https://")?.trim_end_matches('/');
    ENVIRONMENTS.iter().find_map(|(environment, start)| {
        let domain = host.strip_prefix(start)?;
        let (name, _) = DATA_CENTRES.iter().find(|(_, known)| *known == domain)?;
        Some(format!("{name}{environment}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_domain_names_the_data_centre_and_the_environment() {
        let table = [
            ("https://www.zohoapis.com", Some("US")),
            ("https://www.zohoapis.eu/", Some("EU")),
            ("https://sandbox.zohoapis.eu", Some("EU sandbox")),
            ("https://developer.zohoapis.com.au", Some("AU developer")),
            ("https://www.zohoapis.com.cn", Some("CN")),
            ("https://www.zohoapis.ca", Some("CA")),
            ("https://www.zohoapis.com.example.com", None),
            ("https://evil-zohoapis.com", None),
            ("http://127.0.0.1:8000", None),
            ("", None),
        ];
        for (domain, expected) in table {
            assert_eq!(name(domain).as_deref(), expected, "{domain}");
        }
    }
}
