# Completes cloudbridge-agent. Written by make manuals, from --help.
_cloudbridge_agent() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} at
    case $before in
    -c | --config | --key-file | --ca | --to-ca)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    --secrets-mode)
        mapfile -t COMPREPLY < <(compgen -W 'private any' -- "$word")
        return
        ;;
    --to | -n | --tunnels | --grace | --upgrade-timeout | --exit-idle | --check | --check-interval | --check-rise | --check-fall | --rewrite-host | --host | --prefix | --if-method | --if-path-prefix | --if-header | --if-cookie | --if-max-body | --if-client | --instance | --key | --server-name | --to-server-name | --healthz)
        COMPREPLY=()
        return
        ;;
    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W '--to -c --config --echo -n --tunnels --grace --upgrade-timeout --exit-idle --all-addresses --check --check-interval --check-rise --check-fall --send-proxy --rewrite-host --host --prefix --if-method --if-path-prefix --if-header --if-cookie --if-max-body --if-client --instance --key --key-file --bearer-keys --ca --server-name --client-cert --to-ca --to-server-name --to-client-cert --secrets-mode --healthz -t -h --help -v --version' -- "$word")
        return
    fi
}
complete -F _cloudbridge_agent cloudbridge-agent
