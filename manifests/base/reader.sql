-- Run once, when the ledger's database is set up. Tables come later, from the detector: hence the default.
\set password `cat /run/secrets/tenure/reader-password`
CREATE ROLE reader LOGIN PASSWORD :'password';
ALTER ROLE reader SET default_transaction_read_only = on;
GRANT CONNECT ON DATABASE ledger TO reader;
GRANT USAGE ON SCHEMA public TO reader;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
ALTER DEFAULT PRIVILEGES FOR ROLE ledger IN SCHEMA public GRANT SELECT ON TABLES TO reader;
