-- The upkeep process does it within a minute.
SELECT refresh_monthly_revenue();
