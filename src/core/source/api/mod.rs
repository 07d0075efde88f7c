//! Filled in by the api part.
use super::{Definition, Reader, Source};
use crate::error::{Code, Failure};

pub struct Api;

impl Source for Api {
    fn name(&self) -> &'static str {
        "api"
    }

    fn open(&self, _connector: &Definition) -> Result<Box<dyn Reader>, Failure> {
        Err(Failure::new(Code::InvalidConfig, "not built"))
    }
}
