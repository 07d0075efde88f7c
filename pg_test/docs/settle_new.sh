# Waits until the connectors of the new server are synced.
psql -h new.example.com -q -v ON_ERROR_STOP=1 -f "$DOCS_FILES/settle.sql"
