# Waits until the connectors of the new server are synced; and a role of the user's sees them there.
psql -h new.example.com -q -v ON_ERROR_STOP=1 -f "$DOCS_FILES/settle.sql"
[ "$(psql -h new.example.com -U corner_shop -Atc 'SELECT name FROM connectors')" = products ]
