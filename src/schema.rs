//! The order in which the install script is put together.

use pgrx::prelude::*;

extension_sql_file!("../sql/install/00_guard.sql", name = "guard", bootstrap);
extension_sql_file!(
    "../sql/install/10_connector.sql",
    name = "connector",
    requires = ["guard"]
);
extension_sql_file!(
    "../sql/install/20_run.sql",
    name = "run",
    requires = ["connector"]
);
extension_sql_file!(
    "../sql/install/30_raw.sql",
    name = "raw",
    requires = ["run"]
);
extension_sql_file!("../sql/install/90_control.sql", name = "control", finalize);
