\echo 'Read the revenue of each day. No job had to be run for it: the worker sums each day as its records arrive.'
\echo
SELECT to_char(metric_date, 'Dy DD Mon') AS day, metric_value AS revenue,
    repeat('#', round(metric_value / max(metric_value) OVER () * 50)::int) AS chart
FROM metrics WHERE metric_type = 'revenue' ORDER BY metric_date;
\echo 'Look at the gap: one day has no row. Step 9 finds it.'

\echo
\echo 'Read the same revenue by article, and by month.'
\echo
SELECT category, sum(total_revenue) AS revenue, round(100 * sum(total_revenue) / sum(sum(total_revenue)) OVER (), 1) AS percent
FROM daily_revenue_by_category GROUP BY category ORDER BY revenue DESC;

SELECT refresh_monthly_revenue();
SELECT to_char(month, 'YYYY-MM') AS month, total_revenue, round(avg_daily_revenue, 2) AS avg_daily_revenue, days_with_data
FROM monthly_revenue ORDER BY month;
