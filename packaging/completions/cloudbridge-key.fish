# Completes cloudbridge-key. Written by make manuals, from --help.
complete -c cloudbridge-key -f
complete -c cloudbridge-key -l secret-file -r -F -d 'read the secret from FILE, \'-\' for standard input; on the command line others on this machine can see it'
complete -c cloudbridge-key -l secrets -r -F -d 'use the secret in force in a secrets file, or check a key against the file'
complete -c cloudbridge-key -l modern -d 'make a v2 key (HMAC-SHA256, with an expiry)'
complete -c cloudbridge-key -l expires -x -d 'when the v2 key expires: 90d or 12h after TIMESTAMP, or a Unix time (default 90d); narrow counts from now, and keeps the expiry by default'
complete -c cloudbridge-key -l bridges -x -d 'how many bridges may be connected at once by the key (default any number, or as many as before)'
complete -c cloudbridge-key -l host -x -d 'also check that the key covers this name; narrow the key to this name and those below it'
complete -c cloudbridge-key -l prefix -x -d 'narrow the key to bridges for this path and those below it'
complete -c cloudbridge-key -l method -x -d 'narrow the key to bridges that take only these methods, separated by commas'
complete -c cloudbridge-key -s h -l help -d 'print this help'
complete -c cloudbridge-key -s v -l version -d 'print the version'
complete -c cloudbridge-key -n 'not __fish_seen_subcommand_from add check hash narrow show' -a add -d 'FILE'
complete -c cloudbridge-key -n 'not __fish_seen_subcommand_from add check hash narrow show' -a check -d 'KEY --secrets FILE [--host NAME]'
complete -c cloudbridge-key -n 'not __fish_seen_subcommand_from add check hash narrow show' -a hash -d 'KEY'
complete -c cloudbridge-key -n 'not __fish_seen_subcommand_from add check hash narrow show' -a narrow -d 'FILE [options]'
complete -c cloudbridge-key -n 'not __fish_seen_subcommand_from add check hash narrow show' -a show -d 'FILE'
complete -c cloudbridge-key -n '__fish_seen_subcommand_from add check narrow show' -F
