# Completes cloudbridge. Written by make manuals, from --help.
_cloudbridge() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} at
    if ((COMP_CWORD > 1)) && [[ ${COMP_WORDS[1]} == ctl ]]; then
        _cloudbridge_ctl
        return
    fi
    case $before in
    -c | --config | -f | --import-swiftiply | -s | --secrets | -l | --log-file)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    -w | --workers | -i | --info-host)
        COMPREPLY=()
        return
        ;;
    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W '-h --help -v --version -c --config -f -t --check --import-swiftiply -w --workers -s --secrets -i --info-host -l --log-file -d --daemonize' -- "$word")
        return
    fi
    ((COMP_CWORD == 1)) && mapfile -t COMPREPLY < <(compgen -W 'ctl demo' -- "$word")
}
_cloudbridge_ctl() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} at
    case $before in
    -c | --config | --token)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    -a | --admin | -n | --timeout)
        COMPREPLY=()
        return
        ;;
    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W '-h --help -c --config -a --admin --token --json --key -n --timeout' -- "$word")
        return
    fi
    for at in "${COMP_WORDS[@]:1:COMP_CWORD - 1}"; do
        case $at in
        backends | drain | undrain | drop | wait)
            mapfile -t COMPREPLY < <(compgen -W "$(cloudbridge ctl hosts 2>/dev/null | sed -e 1d -e 's/[ ,/].*//')" -- "$word")
            return
            ;;
        upgrade)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            return
            ;;
        hosts | sites | events | reload | old | stop)
            COMPREPLY=()
            return
            ;;
        esac
    done
    mapfile -t COMPREPLY < <(compgen -W 'hosts backends sites drain undrain drop wait events reload old upgrade stop' -- "$word")
}
complete -F _cloudbridge cloudbridge
