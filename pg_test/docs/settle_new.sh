# Waits until the connectors of the new server are synced.
for _ in $(seq 300); do
    busy=$(psql -h new.example.com -Atc "SELECT count(*) FROM connector_health WHERE health <> 'ok'")
    [ "$busy" != 0 ] || break
    sleep 0.2
done
[ "$busy" = 0 ]
