# Completes cloudbridge-key. Written by make manuals, from --help.
complete -c cloudbridge-key -f
complete -c cloudbridge-key -l secret-file -r -F -d 'read the secret from FILE, \'-\' for standard input; on the command line others on this machine can see it'
complete -c cloudbridge-key -l secrets -r -F -d 'use the secret in force in a secrets file, or check a key against the file'
complete -c cloudbridge-key -l modern -d 'make a v2 key (HMAC-SHA256, with an expiry)'
complete -c cloudbridge-key -l expires -x -d 'when the v2 key expires: 90d or 12h after TIMESTAMP, or a Unix time (default 90d)'
complete -c cloudbridge-key -l bridges -x -d 'how many bridges may be connected at once by the v2 key (default any number)'
complete -c cloudbridge-key -l host -x -d 'also check that the key covers this name'
complete -c cloudbridge-key -s h -l help -d 'print this help'
complete -c cloudbridge-key -s v -l version -d 'print the version'
complete -c cloudbridge-key -n 'not __fish_seen_subcommand_from add check hash' -a add -d 'FILE'
complete -c cloudbridge-key -n 'not __fish_seen_subcommand_from add check hash' -a check -d 'KEY --secrets FILE [--host NAME]'
complete -c cloudbridge-key -n 'not __fish_seen_subcommand_from add check hash' -a hash -d 'KEY'
complete -c cloudbridge-key -n '__fish_seen_subcommand_from add check' -F
