-- A workbook with two sheets, "Notes" and "Sales". Sales holds dates, and a formula with its value.
\! rm -f sales.b64
\! printf %s UEsDBBQAAAAIAAAAIVqZsC9Z9gAAAA0DAAATAAAAW0NvbnRlbnRfVHlwZXNdLnhtbMWSzU7DMBCEXyXytao37YEDStMDcAUOvMDi >> sales.b64
\! printf %s bBor/pPXLenb47iFAyogpEqcLHtm5xvLbraTNdWBImvvNmIla7Ftm5djIK6y4ngjhpTCLQCrgSyy9IFcVnofLaa8jTsIqEbcEazr >> sales.b64
\! printf %s +gaUd4lcWqY5Q7TNPfW4N6l6mPLxiRLJsKjuTsaZtREYgtEKU9bh4LovlOWZIPNk8fCgAy+yQcBFwqx8DzjPPeVrR91R9YwxPaLN >> sales.b64
\! printf %s LpgMvPk4vno/yp9DLrT0fa8VdV7tbR6RHCJhxwNRskaWVVrUbvE7v5gZyrK6cpHP/D/2WP9TD05HQ3zt1yihH2QoH759B1BLAwQU >> sales.b64
\! printf %s AAAACAAAACFaS4OjOpYAAAAFAQAACwAAAF9yZWxzLy5yZWxzjc89DsIwDAXgq0Q+QN0yMKCmXVi6Ii4QUvdHbeLICVBuT0aKGBj9 >> sales.b64
\! printf %s /PRZrtvNrepBEmf2GqqihLapL7SalIM4zSGq3PBRw5RSOCFGO5EzseBAPm8GFmdSHmXEYOxiRsJDWR5RPg3Ym6rrNUjXV6Cur0D/ >> sales.b64
\! printf %s 2DwMs6Uz27sjn36c+Gpk2chIScO24pNluTEvRUYBmxp3DzZvUEsDBBQAAAAIAAAAIVpTxx4VrAAAACUBAAAPAAAAeGwvd29ya2Jv >> sales.b64
\! printf %s b2sueG1sjZA7DoMwDIavEvkADTB0QDyWLixdeoIUTIkgMbLTx/GbQpHK1smvT/9vu6hfblIPZLHkS0gPCdRV8SQer0SjikMvJQwh >> sales.b64
\! printf %s zLnW0g7ojBxoRh8nPbEzIZZ80zIzmk4GxOAmnSXJUTtjPawKOf+jQX1vWzxRe3fowyrCOJkQV5PBzgJVsTjINypvHJZwpoACamk1 >> sales.b64
\! printf %s XTwCFOc2Jtx0Keg9fDHTDs5+4OwD681Cb1+o3lBLAwQUAAAACAAAACFaW16gObIAAAASAgAAGgAAAHhsL19yZWxzL3dvcmtib29r >> sales.b64
\! printf %s LnhtbC5yZWxzvZFLCoMwEIavEnIARy10UYzddOO29AIhjkY0JmTSh7dvaOlDkNJF6Wr4Z4ZvPphiezEDO6Gnzo6CZ0nKt2Wxx0GG >> sales.b64
\! printf %s 2CDdOWJxYyTBdQhuA0BKo5GUWIdjnDTWGxli9C04qXrZIuRpugb/zuBzJqtqwX1VZ5wdJoffsG3TdAp3Vh0NjmHhBJyt70kjhgiV >> sales.b64
\! printf %s vsUg+LNFcCtZEqkclmXyP8vkn2RWv5ShMA1IL5N7fpyH2bfLK1BLAwQUAAAACAAAACFaFLFHRcIAAABaAQAADQAAAHhsL3N0eWxl >> sales.b64
\! printf %s cy54bWxdkMsOgjAQRX+l6Qc4QIwLU8qOxI0bN24LDELSV9pi5O9tq0Z0OfeczqOseShJ7uj8bHRNy11BG858WCVeJsRAIta+plMI >> sales.b64
\! printf %s 9gjg+wmV8DtjUUcyGqdEiKW7gbcOxeDTIyWhKooDKDFrytlodPCkN4sOccI7AM4gg1jOUv7yGGSeAGedcUNccGu8ouS8IWc9SnlJ >> sales.b64
\! printf %s e1/HH/UxJm1LX+5Gq7JG9KJaFU5DTQsKf0m5p0RYK9fzojp0bT48Dfg0z33h+3H8CVBLAwQUAAAACAAAACFaCHn4XZwAAADSAAAA >> sales.b64
\! printf %s GAAAAHhsL3dvcmtzaGVldHMvc2hlZXQxLnhtbE2OMQ7CMAxFrxLlALhlYEBpKiRWJk4QWkMimqSyLQq3x+2AGGz5vy9/2/XvPJkX >> sales.b64
\! printf %s EqdaOtvuGtt7t1R6ckQUo27hzkaR+QjAQ8QceFdnLOrcK+UgKukBPBOGcVvKE+yb5gA5pGK929g5SPCO6mJIrygd1uHUWiOdTWVK >> sales.b64
\! printf %s Ba9CyhN7J/4SRjS3j5GIhmOdHYh3sHowaGmO9r9g+H3sv1BLAwQUAAAACAAAACFa0MEVP/AAAAD8AQAAGAAAAHhsL3dvcmtzaGVl >> sales.b64
\! printf %s dHMvc2hlZXQyLnhtbHWRwW7DIBBEfwVx7MGLcRrVFSZK7EtPPfQLkINrqwYsoE7794U0RQlqbsvMjt6gZbsvNaNVWjcZ3eCyIHjH >> sales.b64
\! printf %s 2cnYDzdK6VFwtWvw6P3yDOD6USrhCrNIHZzBWCV8eNp3cIuV4ngOqRkoIVtQYtKYs7PWCS84s+aEbKAEtY/DvsTIN3jS86Tlm7dB >> sales.b64
\! printf %s nxxnnr/ao7TopWPgOYOoQX/JHO5lOvH9z3p7b32vzKf2twkIBVNLmlrGaeUlISWD9boKxcj9fmflm8dtnfntJVgXdTJuEFVCVH8I >> sales.b64
\! printf %s miGqDJH5bQwOvKUPwRjiUlUXTxkNrk4A6bb8B1BLAQIUAxQAAAAIAAAAIVqZsC9Z9gAAAA0DAAATAAAAAAAAAAAAAACAAQAAAABb >> sales.b64
\! printf %s Q29udGVudF9UeXBlc10ueG1sUEsBAhQDFAAAAAgAAAAhWkuDozqWAAAABQEAAAsAAAAAAAAAAAAAAIABJwEAAF9yZWxzLy5yZWxz >> sales.b64
\! printf %s UEsBAhQDFAAAAAgAAAAhWlPHHhWsAAAAJQEAAA8AAAAAAAAAAAAAAIAB5gEAAHhsL3dvcmtib29rLnhtbFBLAQIUAxQAAAAIAAAA >> sales.b64
\! printf %s IVpbXqA5sgAAABICAAAaAAAAAAAAAAAAAACAAb8CAAB4bC9fcmVscy93b3JrYm9vay54bWwucmVsc1BLAQIUAxQAAAAIAAAAIVoU >> sales.b64
\! printf %s sUdFwgAAAFoBAAANAAAAAAAAAAAAAACAAakDAAB4bC9zdHlsZXMueG1sUEsBAhQDFAAAAAgAAAAhWgh5+F2cAAAA0gAAABgAAAAA >> sales.b64
\! printf %s AAAAAAAAAIABlgQAAHhsL3dvcmtzaGVldHMvc2hlZXQxLnhtbFBLAQIUAxQAAAAIAAAAIVrQwRU/8AAAAPwBAAAYAAAAAAAAAAAA >> sales.b64
\! printf %s AACAAWgFAAB4bC93b3Jrc2hlZXRzL3NoZWV0Mi54bWxQSwUGAAAAAAcABwDGAQAAjgYAAAAA >> sales.b64
\! base64 -d < sales.b64 > sales.xlsx
