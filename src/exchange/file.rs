//! A response that names a file, which the owner sends in place of its body.

use crate::http::Response;
use crate::http::send_file::{Named, SendFile};

/// What is kept of such a response.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct NamedFile {
    /// The file, as the responder calls it.
    pub name: Vec<u8>,
    /// It is a path of a URI, with escapes.
    pub is_uri: bool,
    /// The field lines that go on to the requester.
    pub fields: Vec<u8>,
    pub content_type: Option<Vec<u8>>,
}

impl NamedFile {
    /// What `response` says, if it names a file. Only a 200 does.
    pub(super) fn of(response: &Response<'_, '_>) -> Option<Box<NamedFile>> {
        let file = SendFile::of(response).filter(|_| response.status == 200)?;
        let mut fields = Vec::new();
        file.write_fields(response, &mut fields);
        let (name, is_uri) = match file.named {
            Named::Path(path) => (path.to_vec(), false),
            Named::Uri(uri) => (uri.to_vec(), true),
        };
        let content_type = file.content_type.map(<[u8]>::to_vec);
        Some(Box::new(NamedFile { name, is_uri, fields, content_type }))
    }
}
