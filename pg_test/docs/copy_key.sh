# In the place of scp: both servers are on this machine.
from=$(psql -Atc 'SELECT connector_service_key_file()')
to=$(psql -h new.example.com -Atc 'SELECT connector_service_key_file()')
cp -p "$from" "$to"
